//! The crate as a whole, against a registry in this process that does what it is told, however wrong.

#[cfg(test)]
mod auth;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod flaky;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod images;
#[cfg(test)]
mod layouts;
#[cfg(test)]
mod mirrors;
#[cfg(test)]
mod policy;
#[cfg(test)]
mod pull;
#[cfg(test)]
mod push;
#[cfg(test)]
mod raw;
#[cfg(test)]
mod store;
#[cfg(test)]
mod trust;
#[cfg(test)]
mod writing;
