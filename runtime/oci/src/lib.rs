//! An image reference in, a verified artifact in the local store out.
