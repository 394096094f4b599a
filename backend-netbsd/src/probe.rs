//! What this host allows, found by asking it: the report that every backend makes.
