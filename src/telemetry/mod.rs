//! What the program reports about itself: logs, metrics and traces. [`context`] carries a request's id and trace to
//! all work for it; [`propagation`] reads and writes them as headers.

pub mod context;

pub mod log;

pub mod metrics;

pub mod traces;

pub mod propagation;
