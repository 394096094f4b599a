//! Error numbers as portable kinds.
