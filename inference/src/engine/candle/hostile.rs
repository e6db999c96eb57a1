//! Weights and files that are broken or were made to do harm.
