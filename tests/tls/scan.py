"""What sslyze finds on a port of the server: scan.py PORT ecdsa|rsa AUTHORITY. Ends with 1 if a verdict is another."""

import sys
from pathlib import Path

from sslyze import (
    CertificateInfoExtraArgument, ScanCommand, ScanCommandAttemptStatusEnum, ScanCommandsExtraArguments, Scanner,
    ServerNetworkLocation, ServerScanRequest)
from sslyze.mozilla_tls_profile.tls_config_checker import (
    MozillaTlsConfiguration, ServerNotCompliantWithTlsConfiguration, TlsConfigurationEnum,
    check_server_against_tls_configuration)

port, key, authority = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
problems = []


def check(name, found, expected):
    good = found == expected
    print(f"{'ok' if good else 'FAILED'}: {name}: {found}" + ("" if good else f", expected {expected}"))
    if not good:
        problems.append(name)


scanner = Scanner()
scanner.queue_scans([
    ServerScanRequest(
        server_location=ServerNetworkLocation("localhost", port, ip_address="127.0.0.1"),
        scan_commands=set(ScanCommand),
        scan_commands_extra_arguments=ScanCommandsExtraArguments(
            certificate_info=CertificateInfoExtraArgument(custom_ca_file=authority)),
    )
])
[result] = scanner.get_results()
assert result.scan_result, f"no scan: {result.connectivity_error_trace}"
scan = result.scan_result


def of(command):
    attempt = getattr(scan, command)
    error = f"{command}: {attempt.error_reason} {attempt.error_trace}"
    assert attempt.status == ScanCommandAttemptStatusEnum.COMPLETED, error
    return attempt.result


def suites(command):
    return sorted(suite.cipher_suite.name for suite in of(command).accepted_cipher_suites)


for old in ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"]:
    check(old, suites(f"{old}_cipher_suites"), [])
authentication = "ECDSA" if key == "ecdsa" else "RSA"
check("tls_1_2", suites("tls_1_2_cipher_suites"), [
    f"TLS_ECDHE_{authentication}_WITH_AES_128_GCM_SHA256",
    f"TLS_ECDHE_{authentication}_WITH_AES_256_GCM_SHA384",
    f"TLS_ECDHE_{authentication}_WITH_CHACHA20_POLY1305_SHA256",
])
check("tls_1_3", suites("tls_1_3_cipher_suites"),
      ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"])
check("curves", sorted(curve.name for curve in of("elliptic_curves").supported_curves),
    ["X25519", "secp256r1", "secp384r1"])
check("compression", of("tls_compression").supports_compression, False)
check("early data", of("tls_1_3_early_data").supports_early_data, False)
check("Heartbleed", of("heartbleed").is_vulnerable_to_heartbleed, False)
check("CCS injection", of("openssl_ccs_injection").is_vulnerable_to_ccs_injection, False)
check("ROBOT", of("robot").robot_result.name, "NOT_VULNERABLE_RSA_NOT_SUPPORTED")
renegotiation = of("session_renegotiation")
check("secure renegotiation", renegotiation.supports_secure_renegotiation, True)
check("renegotiation by the client", renegotiation.is_vulnerable_to_client_renegotiation_dos, False)
resumption = of("session_resumption")
check("sessions by id", resumption.session_id_resumption_result.name, "NOT_SUPPORTED")
# The server sends a new ticket with each resumption, as RFC 5077 section 3.3 allows. sslyze compares the tickets, and
# takes a new one for a refusal. That sessions are resumed is a test of tests/process/tls.
check("sessions by the same ticket", resumption.tls_ticket_resumption_result.name, "NOT_SUPPORTED")
check("fallback SCSV", of("tls_fallback_scsv").supports_fallback_scsv, True)
[deployment] = of("certificate_info").certificate_deployments
check("chain is valid", deployment.verified_certificate_chain is not None, True)
check("order of the chain", deployment.received_chain_has_valid_order, True)
# Recommendations of Mozilla.
try:
    check_server_against_tls_configuration(result,
        MozillaTlsConfiguration.get(TlsConfigurationEnum.MOZILLA_INTERMEDIATE))
    found = {}
except ServerNotCompliantWithTlsConfiguration as error:
    found = error.issues
check("Mozilla, intermediate", found, {})
print(f"scan.py: {len(problems)} problems")
sys.exit(1 if problems else 0)
