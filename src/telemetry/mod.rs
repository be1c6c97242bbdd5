//! Set-up of what the program tells about itself: logs and metrics, and traces.

pub mod context;

mod line;
pub mod log;

pub mod metrics;

pub mod otlp;

pub mod out;

pub mod throttle;

pub mod trace;
