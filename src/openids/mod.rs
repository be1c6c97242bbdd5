//! User id to openid: from Redis behind a bounded cache, or from a CSV file. Document: specification, section 4.

pub mod admin;

pub mod cache;

pub mod csv;

pub mod file;

pub mod instrumented;

pub mod redis;

pub mod template;

mod tracking;
