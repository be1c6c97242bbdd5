//! Requests for the same order in this process: one leads, the others wait for its reply.
//!
//! This saves work and gives repeats the answer the moment it is there. It is no lock: what keeps two payments apart is
//! the claim in the ledger, which also holds across processes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::reply::Reply;
use crate::rules::contract::send::SendRequest;
use crate::rules::term::{Fen, OrderKey, UserId, WxAppId};

/// The orders that are under way in this process.
#[derive(Clone, Default)]
pub(super) struct Waiters {
    flights: Arc<Mutex<HashMap<OrderKey, Flight>>>,
}

struct Flight {
    wx_app_id: WxAppId,
    user_id: UserId,
    amount: Fen,
    reply: watch::Receiver<Option<Reply>>,
}

/// A request's place among those for the same order.
pub(super) enum Place {
    /// It does the work, and tells the others.
    Lead(Leader),
    /// Another one does the work.
    Follow(watch::Receiver<Option<Reply>>),
    /// Another one is at work with another app, user or amount: its reply would not be this one's.
    Apart,
}

/// Tells the followers; when it is dropped, they stop waiting.
pub(super) struct Leader {
    waiters: Waiters,
    key: OrderKey,
    reply: watch::Sender<Option<Reply>>,
}

impl Waiters {
    pub(super) fn join(&self, request: &SendRequest) -> Place {
        match self.flights().entry(request.key()) {
            Entry::Occupied(flight) => {
                let flight = flight.get();
                let same = flight.wx_app_id == request.wx_app_id
                    && flight.user_id == request.user_id
                    && flight.amount == request.amount;
                if same {
                    Place::Follow(flight.reply.clone())
                } else {
                    Place::Apart
                }
            }
            Entry::Vacant(vacant) => {
                let (sender, reply) = watch::channel(None);
                let key = vacant.key().clone();
                vacant.insert(Flight {
                    wx_app_id: request.wx_app_id.clone(),
                    user_id: request.user_id.clone(),
                    amount: request.amount,
                    reply,
                });
                Place::Lead(Leader {
                    waiters: self.clone(),
                    key,
                    reply: sender,
                })
            }
        }
    }

    /// Whether the order is under way here.
    pub(super) fn has(&self, key: &OrderKey) -> bool {
        self.flights().contains_key(key)
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<OrderKey, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Leader {
    /// What the caller of this request waits on.
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Reply>> {
        self.reply.subscribe()
    }

    /// Ends the flight with a reply.
    pub(super) fn land(self, reply: Reply) {
        self.reply.send_replace(Some(reply));
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.waiters.flights().remove(&self.key);
    }
}
