//! What users talk to: the OpenFaaS REST API.
