//! Names, references, amounts and policies, as users and registries write them: whatever is taken reads back as the
//! same, and can do no harm in a path or an address.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runtime_api::{CpuQuantity, FunctionName, ImageReference, MemoryQuantity, parse_duration};
use runtime_egress::Policy;
use runtime_http::is_route_name;
use runtime_oci::RegistryHost;

fuzz_target!(|text: &str| {
    if let Ok(name) = FunctionName::parse(text) {
        assert_eq!(FunctionName::parse(name.as_str()).unwrap(), name);
        for part in [name.name(), name.namespace()] {
            assert!(
                !part.is_empty()
                    && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            );
        }
        assert!(is_route_name(name.as_str()), "a function that cannot be called");
    }
    if let Ok(image) = ImageReference::parse(text) {
        let written = image.to_string();
        // A name that is written out is no short one any more, and may be too long to be read again.
        if written.len() <= 512 {
            let again = ImageReference::parse(&written).unwrap();
            assert_eq!(
                again,
                ImageReference { short_name: again.short_name.clone(), ..image.clone() },
                "{written}"
            );
        }
        let outside = |part: &str| matches!(part, "" | "." | "..");
        assert!(image.layout().is_some() || !image.repository.split('/').any(outside), "{written}");
    }
    if let Ok(host) = text.parse::<RegistryHost>() {
        assert_eq!(host.to_string().parse::<RegistryHost>().unwrap(), host);
    }
    let _ = (parse_duration(text), MemoryQuantity::parse("field", text), CpuQuantity::parse("field", text));
    if let Ok(policy) = Policy::parse(text) {
        // Where clouds keep credentials: only by an address or a range that is written out.
        let metadata = "169.254.169.254:80".parse().unwrap();
        let names_no_address = !text.contains("169.254.") && !text.contains('/');
        assert!(!(names_no_address && policy.allows(metadata)), "{text}");
    }
});
