//! Set-up of what the program tells about itself: logs now; metrics and traces later.

pub mod log;
