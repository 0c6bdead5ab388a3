//! Users: who they are, what they may do, and how they want to be told things.
