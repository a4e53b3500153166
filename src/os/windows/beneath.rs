//! Files below an open directory: not on Windows, where directories are not mounted into containers.
