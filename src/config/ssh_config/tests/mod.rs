//! Tests over whole files.

mod corpus;
