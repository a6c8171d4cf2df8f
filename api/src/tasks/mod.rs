//! Tasks: reconcilers that make the world agree with the database, and writers that batch.
//!
//! A reconciler is idempotent, takes no input but what the database says, and is woken by a hint and by a
//! timer. A writer takes a bounded channel and commits in batches.
