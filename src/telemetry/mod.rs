//! Set-up of what the program tells about itself: logs and metrics, and traces.

pub mod context;

pub mod log;

pub mod metrics;

pub mod traces;

pub mod propagation;
