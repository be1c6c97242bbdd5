//! What the program reports about itself: logs, metrics and traces. [`context`] carries a request's id and trace to
//! all work for it; [`propagation`] reads and writes them as headers.

pub(crate) mod context;

pub(crate) mod log;

pub mod metrics;

pub(crate) mod traces;

pub(crate) mod propagation;
