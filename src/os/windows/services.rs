//! The service manager.

use crate::os::service_manager::ServiceManager;

/// The program that starts this user's services.
pub const MANAGER: ServiceManager = ServiceManager::TaskScheduler;
