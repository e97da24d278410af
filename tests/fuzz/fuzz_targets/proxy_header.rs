#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| postkey_fuzz::proxy_header(input));
