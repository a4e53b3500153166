//! What can wait until a thread has nothing else to do: it is done before the system puts the thread to sleep, and delays
//! nobody's bytes.

use std::cell::RefCell;
use std::sync::Arc;

/// Work that may wait for a pause.
pub trait AtPause {
    /// Does it. Called once for each time it was put off.
    fn do_now(&self);
}

thread_local! {
    /// What this thread has put off. None: it never says that it pauses.
    static PUT_OFF: RefCell<Option<Vec<Arc<dyn AtPause>>>> = const { RefCell::new(None) };
}

/// Puts `work` off until this thread pauses. False if it does not say when: then it is to be done now.
pub fn put_off<T: AtPause + 'static>(work: &Arc<T>) -> bool {
    PUT_OFF.with_borrow_mut(|list| list.as_mut().map(|list| list.push(work.clone()))).is_some()
}

/// Does what this thread has put off. To be called before each of its pauses.
pub fn before_pause() {
    PUT_OFF.with_borrow_mut(|list| {
        list.get_or_insert_default();
    });
    without_pause();
}

/// As [`before_pause`], for a thread that may have none for long.
pub fn without_pause() {
    // What is done may put off more: a line is formatted, and then is to be written.
    loop {
        let due = PUT_OFF.with_borrow_mut(|list| list.as_mut().map(std::mem::take).unwrap_or_default());
        if due.is_empty() {
            return;
        }
        for work in &due {
            work.do_now();
        }
        PUT_OFF.with_borrow_mut(|list| {
            let mut empty = due;
            empty.clear();
            // Its memory serves the next ones.
            if let Some(list) = list.as_mut().filter(|list| list.is_empty()) {
                *list = empty;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    struct Counted(AtomicUsize);

    /// Puts other work off when it is done.
    struct Following(Arc<Counted>);

    impl AtPause for Following {
        fn do_now(&self) {
            assert!(put_off(&self.0));
        }
    }

    impl AtPause for Counted {
        fn do_now(&self) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn work_waits_for_pauses_where_there_are_any() {
        let work = Arc::new(Counted(AtomicUsize::new(0)));
        without_pause();
        assert!(!put_off(&work), "this thread has not paused yet");
        before_pause();
        assert!(put_off(&work) && put_off(&work));
        assert_eq!(work.0.load(Relaxed), 0);
        before_pause();
        before_pause();
        assert_eq!(work.0.load(Relaxed), 2);
        assert!(put_off(&Arc::new(Following(work.clone()))));
        without_pause();
        assert_eq!(work.0.load(Relaxed), 3, "what follows is done before the same pause");
        let there = work.clone();
        assert!(!std::thread::spawn(move || put_off(&there)).join().expect("joined"), "another thread");
    }
}
