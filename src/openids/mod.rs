//! Looks up a user's openid by user id: in Redis behind a bounded cache, or in a CSV file. See docs/openids.md.

pub mod admin;

pub mod cache;

pub mod csv;

pub mod file;

pub mod instrumented;

pub mod redis;

pub mod template;

mod tracking;
