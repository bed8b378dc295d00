//! The playbook checker: shipped playbooks hold, bad ones are refused with a shortest way, broken engines are found.

mod shipped;
