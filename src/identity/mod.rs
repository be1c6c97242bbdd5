//! User id to openid: from Redis behind a bounded cache, or from a CSV file. Document: specification, section 4.

mod bulk;

pub mod cache;

pub mod csv;

pub mod file;

pub mod invert;

pub mod listing;

pub mod mapping;

pub mod measured;

pub mod redis;

pub mod template;

mod tracking;
