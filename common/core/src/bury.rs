//! Frees what is large on a thread of its own: giving hundreds of megabytes back to the system takes as
//! long as a node may be silent before it is taken for dead.

use std::any::Any;
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, channel};

use crate::background::run_in_background;

type Buried = Box<dyn Any + Send>;

/// Drops a value elsewhere, soon.
pub(crate) fn bury(value: impl Send + 'static) {
    static GRAVE: LazyLock<Sender<Buried>> = LazyLock::new(|| {
        let (grave, buried) = channel::<Buried>();
        // Without a thread nobody receives, and each value is dropped where it is sent.
        let _ = std::thread::Builder::new().name("sanso-free".to_owned()).spawn(move || {
            run_in_background();
            buried.into_iter().for_each(drop);
        });
        grave
    });
    let _ = GRAVE.send(Box::new(value));
}

#[cfg(test)]
mod tests {
    use std::thread::{ThreadId, current};

    use super::*;

    struct Tells(Sender<ThreadId>);

    impl Drop for Tells {
        fn drop(&mut self) {
            let _ = self.0.send(current().id());
        }
    }

    #[test]
    fn what_is_buried_is_dropped_by_another_thread() {
        let (tell, told) = channel();
        bury(Tells(tell));
        assert_ne!(told.recv().expect("it is dropped"), current().id());
    }
}
