//! The extractor that authenticates a request.
