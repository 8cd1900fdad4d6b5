//! Which addresses guests, callbacks and registry redirects may reach.
