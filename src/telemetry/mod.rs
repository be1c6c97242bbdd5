//! Placeholder of `telemetry`, replaced as it is built.
