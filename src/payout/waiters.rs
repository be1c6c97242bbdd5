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
use payout_domain::term::{Fen, OrderKey, UserId, WxAppId};

/// The orders that are under way in this process.
#[derive(Clone, Default)]
pub(super) struct Waiters {
    flights: Arc<Mutex<HashMap<OrderKey, Flights>>>,
}

/// What is under way for one order.
#[derive(Default)]
struct Flights {
    /// How many requests, the leader among them.
    count: usize,
    leader: Option<Flight>,
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
    Apart(Leader),
}

/// A request at work: tells those who wait for it, who stop waiting when it is dropped. As long as it is there, the order is
/// under way in this process, whatever the ledger says.
pub(super) struct Leader {
    waiters: Waiters,
    key: OrderKey,
    leads: bool,
    reply: watch::Sender<Option<Reply>>,
}

impl Waiters {
    pub(super) fn join(&self, request: &SendRequest) -> Place {
        let key = request.key();
        let mut all = self.flights();
        let flights = all.entry(key.clone()).or_default();
        if let Some(flight) = &flights.leader {
            let same = flight.wx_app_id == request.wx_app_id
                && flight.user_id == request.user_id
                && flight.amount == request.amount;
            if same {
                return Place::Follow(flight.reply.clone());
            }
        }
        let (sender, reply) = watch::channel(None);
        let leads = flights.leader.is_none();
        flights.count = flights.count.saturating_add(1);
        if leads {
            flights.leader = Some(Flight {
                wx_app_id: request.wx_app_id.clone(),
                user_id: request.user_id.clone(),
                amount: request.amount,
                reply,
            });
        }
        let leader = Leader {
            waiters: self.clone(),
            key,
            leads,
            reply: sender,
        };
        if leads {
            Place::Lead(leader)
        } else {
            Place::Apart(leader)
        }
    }

    /// Whether the order is under way here: it may be claimed, sent or recorded at any moment.
    pub(super) fn has(&self, key: &OrderKey) -> bool {
        self.flights().contains_key(key)
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<OrderKey, Flights>> {
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
        let mut all = self.waiters.flights();
        let Entry::Occupied(mut entry) = all.entry(self.key.clone()) else {
            return;
        };
        let flights = entry.get_mut();
        flights.count = flights.count.saturating_sub(1);
        if self.leads {
            flights.leader = None;
        }
        if flights.count == 0 {
            entry.remove();
        }
    }
}
