//! Single flight: of the requests for the same order in this process, one leads, and the others wait for its reply.
//!
//! This saves work, and repeats get the answer as soon as it is there. It is not a lock: the claim in the ledger
//! prevents a second payment, also across processes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::reply::Reply;
use payout_domain::contract::send::SendRequest;
use payout_domain::ids::{Fen, OrderKey, UserId, WxAppId};

/// The orders that are under way in this process.
#[derive(Clone, Default)]
pub(super) struct SingleFlight {
    calls: Arc<Mutex<HashMap<OrderKey, Calls>>>,
}

/// The requests that are under way for one order.
#[derive(Default)]
struct Calls {
    /// How many requests do work, the leader included. Followers do not count.
    count: usize,
    leader: Option<Call>,
}

struct Call {
    wx_app_id: WxAppId,
    user_id: UserId,
    amount: Fen,
    reply: watch::Receiver<Option<Reply>>,
}

/// A request's role among those for the same order.
pub(super) enum Role {
    /// It does the work and sends its reply to the followers.
    Lead(Leader),
    /// Another request does the work.
    Follow(watch::Receiver<Option<Reply>>),
    /// Another request with another app, user or amount does work: its reply would be wrong here, so this one does
    /// its own.
    Apart(Leader),
}

/// A request that does work. It replies to those who wait; if it is dropped without a reply, they stop waiting. As
/// long as it exists, the order is under way in this process, whatever the ledger says.
pub(super) struct Leader {
    single_flight: SingleFlight,
    key: OrderKey,
    leads: bool,
    reply: watch::Sender<Option<Reply>>,
}

impl SingleFlight {
    pub(super) fn join(&self, request: &SendRequest) -> Role {
        let key = request.key();
        let mut all = self.calls();
        let calls = all.entry(key.clone()).or_default();
        if let Some(call) = &calls.leader {
            let same = call.wx_app_id == request.wx_app_id
                && call.user_id == request.user_id
                && call.amount == request.amount;
            if same {
                return Role::Follow(call.reply.clone());
            }
        }
        let (sender, reply) = watch::channel(None);
        let leads = calls.leader.is_none();
        calls.count = calls.count.saturating_add(1);
        if leads {
            calls.leader = Some(Call {
                wx_app_id: request.wx_app_id.clone(),
                user_id: request.user_id.clone(),
                amount: request.amount,
                reply,
            });
        }
        let leader = Leader {
            single_flight: self.clone(),
            key,
            leads,
            reply: sender,
        };
        if leads {
            Role::Lead(leader)
        } else {
            Role::Apart(leader)
        }
    }

    /// Whether the order is under way here: it may be claimed, sent or recorded at any moment.
    pub(super) fn has(&self, key: &OrderKey) -> bool {
        self.calls().contains_key(key)
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<OrderKey, Calls>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Leader {
    /// The channel on which this request's own caller waits for the reply.
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Reply>> {
        self.reply.subscribe()
    }

    /// Ends the call with a reply.
    pub(super) fn complete(self, reply: Reply) {
        self.reply.send_replace(Some(reply));
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        let mut all = self.single_flight.calls();
        let Entry::Occupied(mut entry) = all.entry(self.key.clone()) else {
            return;
        };
        let calls = entry.get_mut();
        calls.count = calls.count.saturating_sub(1);
        if self.leads {
            calls.leader = None;
        }
        if calls.count == 0 {
            entry.remove();
        }
    }
}
