//! Posts one scene to the sidecar, as the platform would, and reads the answer.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http::{HeaderMap, header};

use super::script::Scene;
use crate::media;
use crate::rules::encoding::Encoding;
use crate::rules::fields::Fields;
use crate::upstream::client::{Client, Failure};
use crate::upstream::dial::tls_config;

/// The answer's fields.
pub(super) async fn post(sidecar: SocketAddr, scene: &Scene) -> anyhow::Result<Fields<'static>> {
    let client = Client::new(
        format!("http://{sidecar}").parse()?,
        tls_config(None, None)?,
        Duration::from_secs(3),
        Duration::from_secs(20),
    )?;
    let encoding = if scene.is_xml {
        Encoding::Xml
    } else {
        Encoding::Json
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, media::content_type(encoding));
    let answer = client
        .post(scene.path, &headers, Bytes::from(scene.body.clone()), || true)
        .await;
    let answer = answer.map_err(|failure| match failure {
        Failure::NeverSent(why) | Failure::MaybeSent(why) => anyhow!(why),
    })?;
    let fields = encoding
        .decode(&answer.body)
        .map_err(|why| anyhow!(why))
        .context("the answer's body")?;
    Ok(fields.into_owned())
}
