local parts, sum = {}, 0
for round = 1, 5 do
  for i = 1, 30000 do parts[i] = "key" .. i * round .. "=" .. i % 97 end
  local text = table.concat(parts, "&")
  for key, value in text:gmatch("(%w+)=(%w+)") do sum = sum + #key + value end
  sum = sum + #text:upper():gsub("KEY1", "<%0>")
end
print(sum)
