# What the recipe `ruby` promises: Ruby with its library, and bundler.
require "bundler"
require "json"
require "openssl"
require "tmpdir"

raise "sums" unless (1..10).each_slice(2).map(&:sum).sum == 55
raise "JSON" unless JSON.parse('{"a": [1, 2]}')["a"] == [1, 2]
raise "digests" unless OpenSSL::Digest::SHA256.hexdigest("").start_with?("e3b0c442")
raise "certificates" unless File.size("/etc/ssl/certs/ca-certificates.crt") > 100_000
Dir.mktmpdir do |folder|
  File.write("#{folder}/Gemfile", "gem 'json'\n")
  said = `cd #{folder} && bundle install --local 2>&1`
  raise said unless $?.success?
end
puts "ok: Ruby #{RUBY_VERSION}, Bundler #{Bundler::VERSION}"
