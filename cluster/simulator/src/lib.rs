//! A seeded world of clock, network and disks that drives the real cores.
