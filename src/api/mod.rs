//! The public HTTPS interface: WebKMS over actix-web.
