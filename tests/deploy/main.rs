//! Tests of `deploy/` with a platform team's tools: kubectl, helm, the schemas of Kubernetes, promtool.
//!
//! [`kustomize`] and [`chart`] render the manifests, [`same`] compares the two results, and [`schemas`] checks
//! both against Kubernetes' own schemas. [`alerts`] and [`dashboard`] compare what they watch with the metrics
//! that exist, through [`expressions`]. [`image`] checks the Dockerfile. Not here: whether a cluster accepts
//! the manifests (the tests have none).
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
