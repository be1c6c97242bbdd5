//! Requests for the same order in this process: one leads, the others wait for its reply.
//!
//! This saves work and gives repeats the answer the moment it is there. It is no lock: what keeps two payments apart is
//! the claim in the ledger, which also holds across processes.

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

/// What is under way for one order.
#[derive(Default)]
struct Calls {
    /// How many requests, the leader among them.
    count: usize,
    leader: Option<Call>,
}

struct Call {
    wx_app_id: WxAppId,
    user_id: UserId,
    amount: Fen,
    reply: watch::Receiver<Option<Reply>>,
}

/// A request's place among those for the same order.
pub(super) enum Role {
    /// It does the work, and tells the others.
    Lead(Leader),
    /// Another one does the work.
    Follow(watch::Receiver<Option<Reply>>),
    /// Another one is at work with another app, user or amount: its reply would not be this one's.
    Apart(Leader),
}

/// A request at work: tells those who wait for it, who stop waiting when it is dropped. As long as it is there, the order is
/// under way in this process, whatever the ledger says.
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
    /// What the caller of this request waits on.
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
