//! The control protocol: requests as the daemon reads them, events as clients do.

#![no_main]

use dtunnel::daemon::{Event, Request};
use dtunnel::ssh::Secret;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| {
    if let Ok(request) = serde_json::from_slice::<Request>(line) {
        let again = serde_json::to_string(&request).expect("what was read can be written");
        serde_json::from_str::<Request>(&again).expect("and read again");
        // Answers are secrets: they must not be shown.
        if let Request::Answer { answer: Some(secret), .. } = &request {
            assert_eq!(format!("{secret:?}"), format!("{:?}", Secret::new("another".into())), "a secret is shown");
        }
    }
    if let Ok(event) = serde_json::from_slice::<Event>(line) {
        let again = serde_json::to_string(&event).expect("what was read can be written");
        serde_json::from_str::<Event>(&again).expect("and read again");
    }
});
