//! Looks up a user's openid by user id: in Redis behind a bounded cache, or in a CSV file. See docs/openids.md.

pub(crate) mod admin;

pub mod cache;

pub(crate) mod csv;

pub mod file;

pub mod instrumented;

pub mod redis;

pub(crate) mod template;

mod tracking;
