<?php
// What the recipe `php` promises: PHP for the command line, and its extensions.
function check(bool $holds, string $what): void
{
    if (!$holds) {
        fwrite(STDERR, "$what\n");
        exit(1);
    }
}

check(array_sum(array_map(fn ($n) => $n * $n, range(1, 4))) === 30, "sums");
check(mb_strtoupper("grün") === "GRÜN", "mbstring");
check((string) simplexml_load_string("<a><b>42</b></a>")->b === "42", "xml");
$path = tempnam("/tmp", "zip");
$zip = new ZipArchive();
check($zip->open($path, ZipArchive::OVERWRITE) === true && $zip->addFromString("a", "hello") && $zip->close(), "zip");
check($zip->open($path) === true && $zip->getFromName("a") === "hello", "unzip");
$curl = curl_init("file://$path");
curl_setopt($curl, CURLOPT_RETURNTRANSFER, true);
check(curl_exec($curl) === file_get_contents($path), "curl");
check(ctype_digit("42") && function_exists("token_get_all") && class_exists("Phar"), "ctype, tokenizer, phar");
check(count(stream_get_transports()) > 2 && in_array("tls", stream_get_transports()), "TLS");
echo "ok: PHP ", PHP_VERSION, ", libcurl ", curl_version()["version"], ", mbstring, xml, zip\n";
