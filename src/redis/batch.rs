//! Sends many commands at a time, for bulk work, and returns one answer for each, in order.

use futures_util::{StreamExt as _, stream};
use redis::aio::ConnectionLike as _;
use redis::{Cmd, Value};

use super::RedisLink;
use super::dial::Connection;
use super::error::{LinkError, classify};
use super::redirect;

/// How many commands to a cluster may be unanswered at once. Each goes to its own node, and each
/// follows redirects on its own.
const UNDER_WAY: usize = 1024;

impl RedisLink {
    /// Sends each command once and returns their answers. A cluster may execute them in any order.
    ///
    /// # Errors
    /// [`LinkError`] when one of them got no answer: any of them may have taken effect. If the server refused a
    /// command, its place in the list holds that error, and the other answers stay valid.
    pub async fn all(&self, commands: Vec<Cmd>) -> Result<Vec<Result<Value, LinkError>>, LinkError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let (generation, connection) = self.connection().await?;
        match connection {
            Connection::Node(mut node) => {
                let count = commands.len();
                let mut pipeline = redis::pipe();
                for command in commands {
                    pipeline.add_command(command);
                }
                let answers = node.req_packed_commands(&pipeline, 0, count).await;
                let answers = self.judge(generation, answers)?;
                if answers.len() != count {
                    let why = format!("{} answers came to {count} commands", answers.len());
                    return Err(LinkError::Unanswered(why));
                }
                let refused = |error| classify(&error, &self.url().topology);
                let each = answers
                    .into_iter()
                    .map(|answer| answer.extract_error().map_err(refused));
                Ok(each.collect())
            }
            Connection::Cluster(cluster) => {
                let sending = commands.into_iter().map(|command| {
                    let mut cluster = cluster.clone();
                    async move {
                        let answer = redirect::send(&mut cluster, &command).await;
                        self.judge(generation, answer.and_then(Value::extract_error))
                    }
                });
                let mut answers = stream::iter(sending).buffered(UNDER_WAY);
                let mut each = Vec::new();
                while let Some(answer) = answers.next().await {
                    match answer {
                        Err(error) if !matches!(error, LinkError::Refused { .. }) => return Err(error),
                        answer => each.push(answer),
                    }
                }
                Ok(each)
            }
        }
    }
}
