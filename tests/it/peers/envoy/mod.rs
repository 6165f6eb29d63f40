//! Envoy as a second opinion.
