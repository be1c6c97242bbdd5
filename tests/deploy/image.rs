//! Tests that the Dockerfile provides what the manifests assume.

use crate::tools::read;

#[test]
fn the_image_is_what_the_manifests_count_on() {
    let dockerfile = read("deploy/Dockerfile");
    let mut stages: Vec<Vec<&str>> = Vec::new();
    for line in dockerfile
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        match line.strip_prefix("FROM ") {
            Some(from) => stages.push(vec![from]),
            None => stages.last_mut().unwrap().push(line),
        }
    }
    let expected = [
        vec![
            "scratch AS settings",
            "USER 65532:65532",
            "EXPOSE 8080 9090",
            r#"ENTRYPOINT ["/payout-sidecar"]"#,
            r#"CMD ["run", "--config", "/etc/payout-sidecar/config.toml"]"#,
        ],
        vec![
            "settings AS prebuilt",
            "COPY --chmod=0555 dist/payout-sidecar /payout-sidecar",
            "COPY --chmod=0444 dist/sbom.cdx.json /sbom.cdx.json",
        ],
        vec![
            "rust:1.95-bookworm@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1 AS build",
            "WORKDIR /src",
            "COPY . .",
            "RUN deploy/build-binary",
            "RUN scripts/sbom",
        ],
        vec![
            "settings",
            "COPY --from=build --chmod=0555 /src/dist/payout-sidecar /payout-sidecar",
            "COPY --from=build --chmod=0444 /src/dist/sbom.cdx.json /sbom.cdx.json",
        ],
    ];
    assert_eq!(stages, expected);
}
