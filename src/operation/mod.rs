//! From an authorized request to a ceremony and back to a WebKMS reply; one file per operation family.

pub mod batch;
pub mod body;
pub mod description;
pub mod judge;
pub mod route;
#[cfg(test)]
mod tests;
pub mod validation;
