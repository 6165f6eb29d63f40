//! Outrigger: a sidecar proxy. The map, in the order in which traffic meets the modules.
//!
//! A connection is [accepted](downstream), told apart, and read as [requests](http) or passed on as [bytes](tcp); a
//! request is [routed](routing), passes the stack of [policies](policy) and goes [upstream]. Beside the road, on the
//! management thread: where configuration [comes from](control), how it [comes into force](apply), whether endpoints
//! are [well](health), whether the process has [too much](overload) to do, and what is [shown](admin).

pub mod facts;
pub mod live;
pub mod loads;

pub mod downstream;
pub mod http;
pub mod policy;
pub mod routing;
pub mod shadow;
pub mod task;
pub mod tcp;
pub mod upstream;

pub mod body;
pub mod conn;
pub mod error;
pub mod gate;
pub mod h1;
pub mod h2_stream;
pub mod io;
pub mod timer;
pub mod watch;
pub mod worker;

pub mod identity;
pub mod observe;

pub mod admin;
pub mod app;
pub mod apply;
pub mod cli;
pub mod control;
pub mod csds;
pub mod demand;
pub mod demo;
pub mod health;
pub mod jwks;
pub mod material;
pub mod overload;
pub mod privileges;
pub mod reports;
pub mod sys;
pub mod threads;
pub mod trials;
