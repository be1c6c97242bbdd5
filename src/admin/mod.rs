//! The admin port: probes now; metrics, the API and the console later. Document: specification, section 8.

pub mod health;
