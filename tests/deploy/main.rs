//! `deploy/` as the tools see it that a platform team uses: kubectl, helm, the schemas of Kubernetes, promtool.
//!
//! [`kustomize`] and [`chart`] render; [`same`] compares the two forms; [`schemas`] has Kubernetes' own schemas judge both;
//! [`alerts`] and [`dashboard`] hold what is watched to the metrics that there are, by [`expressions`]; [`image`] is about
//! the Dockerfile. Not here: whether a cluster takes it (there is none in a test).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::arithmetic_side_effects,
    unreachable_pub,
    reason = "a test that meets what it did not expect fails, as it should"
)]

mod alerts;
mod chart;
mod dashboard;
mod expressions;
mod image;
mod kustomize;
mod metrics;
mod same;
mod schemas;
mod tools;
