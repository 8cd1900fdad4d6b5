//! The provider's REST surface, written once.
