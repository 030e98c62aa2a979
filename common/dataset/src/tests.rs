//! Tests of the dataset as its users see it.
