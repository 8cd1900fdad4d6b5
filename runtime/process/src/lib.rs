//! What every process does first and last: logging, signals, serve and drain.
