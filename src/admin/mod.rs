//! The admin port: probes, metrics and the operators' API now; the console later. Document: specification, section 8.
//!
//! [`health`] is the port's service and answers the probes, `guard` decides who may ask, [`api`] is what operators ask,
//! [`view`] how they see an order, `refusal` what they are told instead.

pub mod api;

mod guard;

pub mod health;

mod refusal;

pub mod view;
